"""What a client is told for whom there is no connection, also where no HTTP stack is loaded.

Imports nothing of the stack.
"""

TOO_MANY = "too many connections; try again later"
_BODY = (
    b'{"error":{"message":"%b","type":"rate_limit_error","param":null,"code":"queue_full"}}'
    % TOO_MANY.encode()
)
BUSY = (
    b"HTTP/1.1 429 \r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)
"""The whole answer, before anything was asked."""
