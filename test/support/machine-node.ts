import { accessSync, constants, realpathSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The `node` in PATH that is not the pinned one, or `undefined`: what runs `npm` in a fresh clone. */
export function machineNode(): string | undefined {
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .filter((folder) => !folder.includes("node_modules"))
    .map((folder) => join(folder, "node"))
    .find((path) => isExecutable(path) && realpathSync(path) !== realpathSync(process.execPath));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
