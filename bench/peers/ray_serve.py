"""Ray Serve: an echo behind a deployment handle, in a Ray of its own on loopback."""

from __future__ import annotations

import ray
from measure import measure
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=512)
class Echo:
    async def __call__(self, text: str) -> str:
        return text


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        serve.start(http_options={"location": "NoServer"})
        handle = serve.run(Echo.bind(), route_prefix=None)
        measure(handle.remote, lambda response: response.result(timeout_s=60))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
