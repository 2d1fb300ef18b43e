// Sends through Segment's own client for Node: node segment_node.cjs URL KEY. Prints what the client was told.
const { Analytics } = require("@segment/analytics-node");

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, maxRetries: 5, flushAt: 100 });
analytics.on("http_response", ({ status }) => console.log(`answer ${status}`));
analytics.on("error", ({ code, reason }) => console.log(`error ${code} ${reason?.message ?? reason}`));

for (let i = 0; i < 20; i++) {
  analytics.track({ userId: `u${i % 5}`, event: "Order Completed", properties: { amount: 2.5 } });
}
for (let i = 0; i < 5; i++) {
  analytics.page({ anonymousId: `u${i}`, name: "Home", properties: { url: "https://shop.example/" } });
}
analytics.identify({ userId: "u0", traits: { plan: "pro" }, context: { ip: "192.0.2.7", locale: "de-DE" } });
analytics.closeAndFlush({ timeout: 60_000 }).then(() => console.log(`done @segment/analytics-node ${require("@segment/analytics-node/package.json").version}`));
