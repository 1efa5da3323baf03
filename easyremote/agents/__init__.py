"""The Faust agents and what they do with each batch: routing, retries, heartbeats."""
