"""Sends through Segment's own client for Python: segment_python.py URL KEY. Prints what the client was told."""

import sys
from importlib.metadata import version

from segment.analytics.client import Client

host, key = sys.argv[1:]


def told(error, _items):
    print("error", error)


client = Client(key, host=host, gzip=True, on_error=told)
for i in range(20):
    client.track(f"u{i % 5}", "Order Completed", {"amount": 2.5})
for i in range(5):
    client.page(anonymous_id=f"u{i}", name="Home", properties={"url": "https://shop.example/"})
client.identify("u0", {"plan": "pro"}, context={"ip": "192.0.2.7", "locale": "de-DE"})
client.shutdown()
print("done segment-analytics-python", version("segment-analytics-python"))
