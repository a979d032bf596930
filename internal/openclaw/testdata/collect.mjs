// Asks OpenClaw's own code which references of a configuration it would resolve, and for whom: node collect.mjs DIST <
// questions > answers. DIST is the folder "dist" of the npm package; modules and exports are found by what is in them.
// Each line of the input is {config, env}, each line of the output a list of {path, key, owner, strict, expected, off}.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";

const dist = process.argv[2];
const texts = readdirSync(dist).filter((n) => n.endsWith(".mjs")).map((name) => ({ name, text: readFileSync(join(dist, name), "utf8") }));

async function find(declaration, symbol) {
  for (const { name, text } of texts) {
    if (!text.includes(declaration)) continue;
    const alias = text.match(new RegExp(`[{,]\\s*${symbol} as (\\w+)`))?.[1];
    if (alias) return (await import(pathToFileURL(join(dist, name))))[alias];
  }
  throw new Error(`no ${symbol}`);
}

const collect = await find("function collectConfigAssignments(", "collectConfigAssignments");
const contextFor = await find("function createResolverContext(", "createResolverContext");
const key = await find("function secretRefKey(", "secretRefKey");

for await (const line of createInterface({ input: process.stdin })) {
  const { config, env } = JSON.parse(line);
  let answer;
  try {
    const context = contextFor({ sourceConfig: config, env });
    collect({ config: structuredClone(config), context });
    answer = context.assignments.map((a) => ({
      path: a.path, key: key(a.ref), owner: a.ownerKind === "unknown" ? "" : `${a.ownerKind}:${a.ownerId}`,
      strict: a.requiredForGateway || a.disposition === "fail-closed" || a.ownerKind === "unknown", expected: a.expected, digest: a.ownerContractDigest ?? "",
    }));
    for (const w of context.warnings) if (w.code === "SECRETS_REF_IGNORED_INACTIVE_SURFACE") answer.push({ path: w.path, off: true });
  } catch (e) {
    answer = { error: e.name };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
