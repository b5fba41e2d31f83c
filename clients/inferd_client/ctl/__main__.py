"""`python -m inferd_client.ctl` is inferdctl."""

from .main import main

main()
