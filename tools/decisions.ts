import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const FOLDER = "docs/decisions";
const INDEX = "README.md";
const SECTIONS = ["Status", "Context", "Decision", "Consequences", "Alternatives"];

/**
 * The form of the decision pages: numbered from 1 without gaps, a title with the number, the same sections in
 * the same order, and an entry in the index. Returns one line for each violation.
 */
export function findDecisionFaults(root: string): string[] {
  const pages = readdirSync(join(root, FOLDER)).filter((name) => name !== INDEX);
  const index = readFileSync(join(root, FOLDER, INDEX), "utf8");
  return pages.toSorted().flatMap((page, position) => {
    const text = readFileSync(join(root, FOLDER, page), "utf8");
    const number = position + 1;
    const sections = [...text.matchAll(/^## (.+)$/gm)].map(([, title]) => title);
    const faults: string[] = [];
    if (!page.startsWith(`${String(number).padStart(4, "0")}-`)) {
      faults.push(`must have number ${number}: the numbers have no gaps and no duplicates`);
    }
    if (!text.startsWith(`# ${number}. `)) {
      faults.push(`must begin with "# ${number}. "`);
    }
    if (sections.join() !== SECTIONS.join()) {
      faults.push(`has the sections ${sections.join(", ") || "none"}; they must be ${SECTIONS.join(", ")}`);
    }
    if (!index.includes(`](${page})`)) {
      faults.push(`is not in ${FOLDER}/${INDEX}`);
    }
    return faults.map((fault) => `${FOLDER}/${page} ${fault}`);
  });
}
