// Sends through PostHog's own client for Node: node posthog_node.cjs URL KEY. Prints what the client was told.
const { PostHog } = require("posthog-node");

const [host, key] = process.argv.slice(2);
const seen = async (url, options) => {
  const response = await fetch(url, options);
  console.log(`answer ${response.status}`);
  return response;
};
const posthog = new PostHog(key, { host, flushAt: 100, fetchRetryDelay: 100, fetch: seen });
posthog.on("error", (error) => console.log(`error ${error.message}`));

for (let i = 0; i < 20; i++) {
  posthog.capture({ distinctId: `u${i % 5}`, event: "Order Completed", properties: { amount: 2.5 } });
}
for (let i = 0; i < 5; i++) {
  const visitor = i === 0 ? { $ip: "192.0.2.7", $locale: "de-DE" } : {};
  posthog.capture({ distinctId: `u${i}`, event: "$pageview", properties: { $current_url: "https://shop.example/", ...visitor } });
}
posthog.identify({ distinctId: "u0", properties: { plan: "pro" } });
posthog.shutdown(60_000).then(() => console.log(`done posthog-node ${posthog.getLibraryVersion()}`));
