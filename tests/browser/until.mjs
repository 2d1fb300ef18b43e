// Waiting for a condition, with a deadline.

const LOOK_MS = 50;

export async function until(what, deadlineMs, condition) {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not within ${deadlineMs / 1000} s: ${what}`);
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}
