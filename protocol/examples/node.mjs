// A client of the bridge in Node.js: requests, a stream, an error, the end.
//     npm ci && node node.mjs [COMMAND ...]     COMMAND starts a bridge: `dspex bridge` by default
import { spawn } from "node:child_process";
import { once } from "node:events";
import { decode, encode } from "@msgpack/msgpack";

class Bridge {
  #waiting = new Map(); // id -> { resolve, reject, onNotification }: many may be in flight
  #lastId = 0;

  constructor([command, ...args]) {
    this.process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.ended = once(this.process, "close"); // [status]; rejected where it did not even start
    const lose = (error) => this.#waiting.forEach(({ reject }) => reject(error));
    this.ended.then(([status]) => lose(new Error(`the bridge exited: status ${status}`)), lose);
    this.process.stdin.on("error", () => {}); // its end says more

    let size = null; // of the frame that is being read; null while its length is
    this.process.stdout.on("readable", () => {
      let bytes; // read(n) gives n bytes, or null until they are there
      while ((bytes = this.process.stdout.read(size ?? 4)) !== null) {
        if (size !== null) this.#receive(decode(bytes));
        size = size === null ? bytes.readUInt32BE() : null;
      }
    });
  }

  request(method, params = {}, onNotification = () => {}) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.send([0, id, method, params]);
      this.#waiting.set(id, { resolve, reject, onNotification });
    });
  }

  send(message) {
    if (!this.process.stdin.writable) throw new Error("the bridge is gone");
    const frame = Buffer.concat([Buffer.alloc(4), encode(message)]);
    frame.writeUInt32BE(frame.length - 4);
    this.process.stdin.write(frame);
  }

  #receive([kind, ...rest]) {
    if (kind === 2) return this.#waiting.get(rest[1].id)?.onNotification(...rest); // method, params
    const [id, error, result] = rest; // kind 0 is a call of a tool or metric: we have offered none
    if (id === null) return console.error("a frame of ours was refused:", error.message);
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    error ? reject(Object.assign(new Error(), error)) : resolve(result);
  }
}

const bridge = new Bridge(process.argv[2] ? process.argv.slice(2) : ["dspex", "bridge"]);
const { protocol_version } = await bridge.request("initialize", { protocol_version: 1 });
console.log(`connected: protocol ${protocol_version}`);
await bridge.request("configure", { lms: { main: { model: "demo/knn" } } });
await bridge.request("create", { program: "triage", signature: "letter -> summary, urgent: bool" });

const letter = "The database has been down since nine and nobody can log in. It is urgent.";
const triage = { program: "triage", inputs: { letter } };
const { outputs } = await bridge.request("execute", triage);
console.log(`answer: ${outputs.summary} (urgent: ${outputs.urgent})`);

let [text, attempt] = ["", 0];
const stream = { fields: ["summary"], window: 1 }; // each chunk has to be granted
await bridge.request("execute", { ...triage, stream }, (_, chunk) => {
  text = chunk.attempt === attempt ? text + chunk.text : chunk.text; // a retry begins again
  attempt = chunk.attempt;
  bridge.send([2, "grant", { id: chunk.id, n: 1 }]);
});
console.log(`streamed: ${text}`);

await bridge.request("execute", { ...triage, inputs: { leter: "Hello" } }).catch((error) => {
  console.log(`error: ${error.code}, ${error.retryable ? "worth a retry" : "final"}`);
  error.data.errors.forEach(({ path, message }) => console.log(`  ${path.join(".")}: ${message}`));
});
await bridge.request("shutdown");
bridge.process.stdin.end();
console.log(`ended: status ${(await bridge.ended)[0]}`);
