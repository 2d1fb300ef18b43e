"""Sends through PostHog's own client for Python: posthog_python.py URL KEY. Prints what the client was told."""

import sys
from importlib.metadata import version

from posthog import Posthog

host, key = sys.argv[1:]


def told(error, _items):
    print("error", error)


client = Posthog(key, host=host, gzip=True, on_error=told)
for i in range(20):
    client.capture("Order Completed", distinct_id=f"u{i % 5}", properties={"amount": 2.5})
for i in range(5):
    client.capture("$pageview", distinct_id=f"u{i}", properties={"$current_url": "https://shop.example/"})
client.capture(
    "$identify", distinct_id="u0", properties={"$set": {"plan": "pro"}, "$ip": "192.0.2.7", "$locale": "de-DE"}
)
client.shutdown()
print("done posthog", version("posthog"))
