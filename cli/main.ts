#!/usr/bin/env node
import { enableCompileCache } from "node:module";

// Before the rest is loaded: compiled code that is kept halves the time of a start.
enableCompileCache();
const { runProgram } = await import("./program.ts");
await runProgram();
