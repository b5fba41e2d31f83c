"""How one request is answered: one file for each kind of backend, none of which knows another."""
