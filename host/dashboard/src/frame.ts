// Drawing happens once a frame. Browsers give a hidden tab no frames: it stops drawing and catches up when shown.

const waiting = new Set<() => void>();
let asked = false;

export function soon(draw: () => void): void {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const now = [...waiting];
    waiting.clear();
    for (const d of now) d();
  });
}
