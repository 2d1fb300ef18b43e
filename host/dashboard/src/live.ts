// The one WebSocket: connects, reconnects with back-off, sends what is asked, hands on what comes.
// Does not know what the messages mean.
import { key } from "./api";
import type { LiveMessage } from "./contract";

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 10_000;
const CONNECT_MS_MAX = 8_000;

export interface LiveHandlers {
  message(m: LiveMessage): void;
  up(): void;
  down(): void;
}

export class Live {
  up = false;
  #socket: WebSocket | null = null;
  #handlers: LiveHandlers;
  #backoff = BACKOFF_MS_MIN;
  #timer = 0;

  constructor(handlers: LiveHandlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retryNow();
    });
  }

  connect(): void {
    clearTimeout(this.#timer);
    const url = new URL("/v1/live", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const k = key();
    if (k) url.searchParams.set("key", k);
    const socket = new WebSocket(url);
    this.#socket = socket;
    const giveUp = setTimeout(() => this.#lost(socket), CONNECT_MS_MAX);
    socket.onopen = () => {
      clearTimeout(giveUp);
      this.up = true;
      this.#backoff = BACKOFF_MS_MIN;
      this.#handlers.up();
    };
    socket.onmessage = (e) => this.#handlers.message(JSON.parse(e.data as string) as LiveMessage);
    socket.onclose = () => {
      clearTimeout(giveUp);
      this.#lost(socket);
    };
  }

  /** The connection is known to be dead before the socket noticed. */
  drop(): void {
    if (this.#socket) this.#lost(this.#socket);
  }

  retryNow(): void {
    if (!this.#socket && this.#timer) this.connect();
  }

  send(message: object): void {
    if (this.up) this.#socket?.send(JSON.stringify(message));
  }

  #lost(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    this.#socket = null;
    socket.onclose = null;
    socket.onmessage = null;
    socket.onopen = null;
    socket.close();
    const was = this.up;
    this.up = false;
    // Half of the wait is by chance, so that many pages do not come back at the same moment.
    this.#timer = window.setTimeout(() => this.connect(), this.#backoff * (0.5 + Math.random() / 2));
    this.#backoff = Math.min(this.#backoff * 2, BACKOFF_MS_MAX);
    if (was) this.#handlers.down();
  }
}
