"""`python -m app.simulator`: the simulator's API, for `jobhook dev`."""

import argparse

import uvicorn

from app.config.sources import load_settings
from app.simulator.api import Api
from tests.support.servers import HOST


def main() -> None:
    """Serves until it is stopped, for the key of the environment."""
    parser = argparse.ArgumentParser(prog="python -m app.simulator", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    settings = load_settings()
    key = settings.api_token or settings.api_key
    api = Api(key.get_secret_value())
    uvicorn.run(api, host=HOST, port=parser.parse_args().port, log_level="error", lifespan="off", ws="none")


if __name__ == "__main__":
    main()
