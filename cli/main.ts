#!/usr/bin/env node
import { CommanderError } from "commander";
import { CommandError, EXIT } from "./errors.ts";
import { exitOnBrokenPipe } from "./output/output.ts";
import { createProgram } from "./program.ts";

exitOnBrokenPipe();
try {
  await createProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed the help, or the error with its suggestion.
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  } else if (error instanceof CommandError) {
    process.stderr.write(`error: ${error.message}\n`);
    process.exitCode = error.exitCode;
  } else {
    throw error;
  }
}
