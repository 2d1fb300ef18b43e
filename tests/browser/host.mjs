// One real host for the browser to look at: own port, own data, own copy of the definitions.
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "./until.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const READY_MS_MAX = 90_000;
const LOG_CHARS_MAX = 20_000;

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

export class Host {
  /** @param extra flags besides those that every test host has */
  static async create(binary, extra = []) {
    const host = new Host();
    host.binary = binary;
    host.extra = extra;
    host.dir = await mkdtemp(join(tmpdir(), "tidemark-browser-"));
    host.definitions = join(host.dir, "metrics.toml");
    host.port = await freePort();
    host.url = `http://127.0.0.1:${host.port}`;
    await cp(join(ROOT, "metrics.toml"), host.definitions);
    const plugins = join(host.dir, "plugins");
    await mkdir(plugins);
    for (const name of await readdir(join(ROOT, "plugins"))) {
      if (/\.(wasm|mmdb)$/.test(name)) await cp(join(ROOT, "plugins", name), join(plugins, name));
    }
    return host;
  }

  async start() {
    this.log = "";
    const flags = ["run", "--metrics", this.definitions, "--plugins", join(this.dir, "plugins"), "--data", join(this.dir, "data")];
    flags.push("--listen", `127.0.0.1:${this.port}`, "--refresh", "1s", ...this.extra);
    const child = spawn(this.binary, flags, { stdio: ["ignore", "pipe", "pipe"] });
    const keep = (text) => {
      this.log = (this.log + text).slice(-LOG_CHARS_MAX);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    this.child = child;
    this.gone = new Promise((done) => child.on("exit", done));
    await until("the host is ready", READY_MS_MAX, async () => {
      if (child.exitCode !== null) throw new Error(`the host ended with ${child.exitCode}:\n${this.log}`);
      return (await fetch(`${this.url}/health/ready`).catch(() => null))?.ok;
    });
  }

  async kill() {
    this.child?.kill("SIGKILL");
    await this.gone;
  }

  async remove() {
    await this.kill();
    await rm(this.dir, { recursive: true, force: true });
  }

  async get(path, headers = {}) {
    const response = await fetch(this.url + path, { headers });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async post(events, headers = {}) {
    const response = await fetch(`${this.url}/v1/events`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(events),
    });
    if (response.status !== 202) throw new Error(`POST /v1/events: ${response.status} ${await response.text()}`);
  }

  /** Saves the definitions the way editors do: a new file renamed over the old one. */
  async edit(change) {
    const text = await readFile(this.definitions, "utf8");
    const next = change(text);
    if (next === text) throw new Error("the edit changes nothing");
    await writeFile(`${this.definitions}.new`, next);
    await rename(`${this.definitions}.new`, this.definitions);
    return text;
  }
}
