"""`serve_scripted.py [DRAIN_SECONDS]`: a server with a scripted engine on a free port; prints its URL."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if __name__ == "__main__":
    from scripted_engine import ScriptedEngine

    from fusionvl.serve.app import create_app
    from fusionvl.serve.server import run_server
    from fusionvl.serve.settings import ServerSettings

    drain_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    app = create_app("scripted", ScriptedEngine, ServerSettings())
    run_server(app, "127.0.0.1", 0, drain_seconds, lambda url: print(url, flush=True))
