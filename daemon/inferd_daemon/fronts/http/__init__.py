"""The HTTP front: the same routes, queues and leases as on `inferd.sock`, for tools that know
only URLs. Nothing here is imported before HTTP is wanted: the server and its stack are heavy."""
