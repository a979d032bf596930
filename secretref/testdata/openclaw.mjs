// Asks OpenClaw's own code what it makes of the cases of contract.json: node openclaw.mjs DIST < cases > answers. DIST is the
// folder "dist" of the npm package; the names of its modules and exports are found by what is in them. Each line of the input
// is one question, each line of the output its answer.
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

const resolve = await find("async function resolveSecretRefValuesSettledByProvider(", "resolveSecretRefValuesSettledByProvider");
const key = await find("function secretRefKey(", "secretRefKey");
const group = await find("function normalizeAndGroupSecretRefs(", "normalizeAndGroupSecretRefs");
const coerce = await find("function coerceSecretRef(", "coerceSecretRef");
const isRef = await find("function isSecretRef(", "isSecretRef");

const schema = await find("const SecretsConfigSchema =", "SecretsConfigSchema");
const expected = await find("function isExpectedResolvedSecretValue(", "isExpectedResolvedSecretValue");
const redacted = await find("function isRedactedSecretValue(", "isRedactedSecretValue");
const describe = await find("function describeSecretResolutionError(", "describeSecretResolutionError");
const retryable = await find("function isRetryableSecretDegradationReason(", "isRetryableSecretDegradationReason");
const providerError = await find("function providerResolutionError(", "providerResolutionError");
const refError = await find("function refResolutionError(", "refResolutionError");

const failure = (e) => ({ error: e.message, code: e.code ?? "", scope: e.scope ?? "" });

async function pass({ secrets, env, refs, dir, home }) {
  process.chdir(dir);
  process.env.OPENCLAW_HOME = home;
  const { resolved, failures } = await resolve(refs, { config: { secrets }, env, cache: {} });
  return refs.map((ref) => {
    const k = key({ ...ref, id: ref.id.trim() });
    if (resolved.has(k)) {
      const value = resolved.get(k);
      return typeof value === "string" ? { value } : { json: JSON.stringify(value) };
    }
    const id = ref.id.trim();
    const own = failures.find((f) => f.group.source === ref.source && f.group.providerName === ref.provider && (!f.error.refId || f.error.refId === id));
    return own ? failure(own.error) : { error: "nothing", code: "", scope: "" };
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  let answer;
  try {
    if (question.ask === "pass") answer = await pass(question);
    else if (question.ask === "config") answer = schema.safeParse(question.config ?? undefined).success;
    else if (question.ask === "consume") answer = expected(question.value, question.expected) && !redacted(question.value);
    else if (question.ask === "reason") {
      const reason = describe((question.code.startsWith("SECRET_PROVIDER") ? providerError : refError)({ code: question.code, message: "x" }));
      answer = { reason: reason ?? "secret resolution failed", retryable: retryable(reason) };
    } else if (question.ask === "check") {
      try {
        group([question.ref]);
        answer = "";
      } catch (e) {
        answer = e.message;
      }
    } else answer = question.shorthands ? coerce(question.in, question.defaults) : isRef(question.in) ? question.in : null;
  } catch (e) {
    answer = { failed: e.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
