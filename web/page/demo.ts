import "../styles/hold.css";
import { Holds } from "./holds.ts";

// Loaded before the page's script, in the demo only.
globalThis.demoHolds = new Holds();
