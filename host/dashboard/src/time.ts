// The host's clock as the page knows it, and how times are written. All times are Unix milliseconds.

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

let offset = 0;

/** The browser's clock may be off: what is "now" on the page is the host's now. */
export function setHostNow(hostNow: number): void {
  offset = hostNow - Date.now();
}

export function now(): number {
  return Date.now() + offset;
}

const two = (n: number): string => String(n).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** `14:02` */
export function hourMinute(t: number): string {
  const d = new Date(t);
  return `${two(d.getHours())}:${two(d.getMinutes())}`;
}

/** `14:02:10` */
export function clockTime(t: number): string {
  return `${hourMinute(t)}:${two(new Date(t).getSeconds())}`;
}

/** `Nov 24` */
export function monthDay(t: number): string {
  const d = new Date(t);
  return `${MONTHS[d.getMonth()]} ${d.getDate()}`;
}

/** `Nov 24 14:02` */
export function dateTime(t: number): string {
  return `${monthDay(t)} ${hourMinute(t)}`;
}

/** The time alone when it is of today, else with its date. */
export function nearTime(t: number, today: number = now()): string {
  return new Date(t).toDateString() === new Date(today).toDateString() ? hourMinute(t) : dateTime(t);
}

/** `Nov 24 12:00 – 13:30`, the second date only where it differs. */
export function spanText(from: number, to: number): string {
  const sameDay = new Date(from).toDateString() === new Date(to).toDateString();
  return `${dateTime(from)} – ${sameDay ? hourMinute(to) : dateTime(to)}`;
}

/** `45 s`, `12 min`, `3 h`, `2 d` */
export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return `${s} s`;
  if (s < 90 * 60) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** What a point stands for: `1 h to 14:03`. */
export function covered(t: number, stepMs: number, windowMs: number): string {
  return `${duration(Math.max(stepMs, windowMs))} to ${nearTime(t + stepMs)}`;
}

/** A stretch of time widened to whole minutes, two at least. */
export function wholeMinutes(from: number, to: number): { from: number; to: number } {
  const start = Math.floor(from / MINUTE) * MINUTE;
  return { from: start, to: Math.max(start + 2 * MINUTE, Math.ceil(to / MINUTE) * MINUTE) };
}

/** `UTC`, `UTC+1`, `UTC+5:30` for the browser's zone at that time. */
export function zoneName(t: number = now()): string {
  const minutes = -new Date(t).getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const sign = minutes < 0 ? "−" : "+";
  const m = Math.abs(minutes);
  return `UTC${sign}${Math.floor(m / 60)}${m % 60 ? `:${two(m % 60)}` : ""}`;
}

/** A time for `<input type="datetime-local">`, in the browser's zone. */
export function toInput(t: number): string {
  const d = new Date(t);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${hourMinute(t)}`;
}
