// Requests to the host, with the key where it wants one. Knows paths and errors, nothing of the page.
import type { DefinitionsAnswer, DimensionAnswer, Explanation, MetricsAnswer, Plugin, QueryAnswer, RejectsAnswer, Status, Where } from "./contract";
import { stepText } from "./view";

const KEY_ITEM = "tidemark-key";
const TIMEOUT_MS = 20_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Asked once when the host wants a key; set by the page. */
let askKey: (() => Promise<string>) | null = null;
let asking: Promise<string> | null = null;

export function onKeyNeeded(ask: () => Promise<string>): void {
  askKey = ask;
}

export function key(): string | null {
  return sessionStorage.getItem(KEY_ITEM);
}

async function newKey(): Promise<boolean> {
  if (!askKey) return false;
  asking ??= askKey().finally(() => {
    asking = null;
  });
  sessionStorage.setItem(KEY_ITEM, await asking);
  return true;
}

async function get<T>(path: string): Promise<T> {
  for (let refused = 0; ; ) {
    const used = key();
    const headers: Record<string, string> = used ? { authorization: `Bearer ${used}` } : {};
    const response = await fetch(path, { headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (response.status === 401) {
      // Another request may have brought a key meanwhile; and the first answer may be that of the page's preload, which
      // went without a key. So ask only when the same key is refused again.
      refused = key() === used ? refused + 1 : 0;
      if (refused === 0 || (used !== null && refused === 1)) continue;
      if (await newKey()) {
        refused = 0;
        continue;
      }
    }
    if (!response.ok) throw new ApiError(response.status, await reason(response));
    return (await response.json()) as T;
  }
}

async function reason(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { error?: { message?: string; help?: string } };
    if (body.error?.message) return [body.error.message, body.error.help].filter(Boolean).join(". ");
  } catch {
    // not JSON: the status line must do
  }
  return `${response.status} ${response.statusText}`;
}

export const getMetrics = (): Promise<MetricsAnswer> => get("/v1/metrics");
export const getStatus = (): Promise<Status> => get("/v1/status");
export const getDefinitions = (): Promise<DefinitionsAnswer> => get("/v1/definitions");
export const getPlugins = async (): Promise<Plugin[]> => (await get<{ plugins: Plugin[] }>("/v1/plugins")).plugins;
export const getRejects = (limit: number): Promise<RejectsAnswer> => get(`/v1/rejects?limit=${limit}`);
export const getDimension = (name: string): Promise<DimensionAnswer> => get(`/v1/dimensions/${encodeURIComponent(name)}`);

/** Which series of a metric, at which step. */
export interface Subject {
  metric: string;
  by: string[];
  where: Where;
  stepMs: number;
}

export interface QuerySpec extends Subject {
  from: number;
  to: number;
}

/** `to` is exclusive. */
export const query = (q: QuerySpec): Promise<QueryAnswer> => get(`/v1/query?${subject(q)}&from=${q.from}&to=${q.to}`);

/** The point of one series at a time. */
export const explain = (s: Subject, t: number): Promise<Explanation> => get(`/v1/explain?${subject(s)}&t=${t}`);

function subject(s: Subject): string {
  const parts = [`metric=${encodeURIComponent(s.metric)}`, `step=${stepText(s.stepMs)}`];
  if (s.by.length) parts.push(`by=${s.by.map(encodeURIComponent).join(",")}`);
  for (const [name, values] of Object.entries(s.where)) {
    parts.push(`${encodeURIComponent(name)}=${values.map(encodeURIComponent).join(",")}`);
  }
  return parts.join("&");
}
