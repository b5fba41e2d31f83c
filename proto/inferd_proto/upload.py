"""The attachments of one request on their way in: announced, charged, then kept or dropped.

Blobs follow their request in order (wire.md section 3.2). Each is charged against the request's
total when it is announced, and its frame is let in only at the announced length. After a
refused request its blobs are read past without keeping a byte.
"""

from .errors import ErrorCode, RemoteProtocolError, quoted
from .frames import MAX_FRAME_BYTES, FrameType
from .messages import (
    MAX_REQUEST_BLOB_BYTES,
    Attachment,
    AttachmentBlob,
    AudioAttachment,
    GenerateV2,
    ImageAttachment,
    Request,
)

_FLOAT32_BYTES = 4
_NONE = -1


class BlobGate:
    """Decides for each BLOB frame whether it may come in, and whether its bytes are kept."""

    __slots__ = ("_announced", "_blobs", "_discarding", "_total", "request")

    def __init__(self) -> None:
        self.request: GenerateV2 | None = None
        """The request that misses blobs, None where there is none."""
        self._blobs: list[bytes] = []
        self._announced = _NONE
        self._total = 0
        self._discarding = False

    @property
    def awaits_blob(self) -> bool:
        """True between an `attachment_blob` message and the end of its BLOB frame."""
        return self._announced != _NONE

    def expect(self, request: Request) -> bool:
        """A valid request begins; True where it has attachments to wait for."""
        self._clear()
        self._discarding = False
        if isinstance(request, GenerateV2) and request.attachments:
            self.request = request
        return self.request is not None

    def discard(self) -> None:
        """The request was refused, or has ended: read past those of its blobs that may follow."""
        self._clear()
        self._discarding = True

    def announce(self, message: AttachmentBlob) -> None:
        """Charge an announced blob, before a byte of it is read.

        Raises RemoteProtocolError. Without `close` its BLOB frame is read past.
        """
        request = self.request
        request_id = request.id if request is not None else ""
        self._announced = message.len
        self._total += message.len
        if message.len > MAX_FRAME_BYTES or self._total > MAX_REQUEST_BLOB_BYTES:
            raise RemoteProtocolError(
                f"attachments of {self._total} bytes are over the cap of {MAX_REQUEST_BLOB_BYTES}"
                f" a request, {MAX_FRAME_BYTES} a blob",
                code=ErrorCode.FRAME_TOO_LARGE,
                request_id=request_id,
                close=True,
            )
        if request is not None:
            index = len(self._blobs)
            if mistake := _mistake(request.attachments[index], message):
                self.discard()
                raise RemoteProtocolError(
                    f"`attachments[{index}]`: {mistake}", request_id=request_id
                )
        elif not self._discarding:
            self.discard()
            raise RemoteProtocolError("attachment_blob without a request that waits for one")

    def admit(self, frame_type: FrameType, length: int) -> bool:
        """Judge a frame by its header; False means: read past it."""
        if frame_type is not FrameType.BLOB:
            return True
        if self._announced == _NONE:
            raise RemoteProtocolError("BLOB frame without an attachment_blob", close=True)
        if length != self._announced:
            raise RemoteProtocolError(
                f"a blob of {length} bytes was announced with {self._announced}", close=True
            )
        return self.request is not None

    def take(self, payload: bytes | None) -> GenerateV2 | None:
        """A BLOB frame came in whole; the request it belongs to, None for a dropped one."""
        self._announced = _NONE
        if payload is not None and self.request is not None:
            self._blobs.append(payload)
        return self.request

    def complete(self) -> tuple[bytes, ...] | None:
        """All blobs, once there is one for each attachment; the gate then forgets them."""
        if self.request is None or len(self._blobs) < len(self.request.attachments):
            return None
        blobs = tuple(self._blobs)
        self._clear()
        return blobs

    def _clear(self) -> None:
        self.request = None
        self._blobs = []
        self._total = 0


def _mistake(attachment: Attachment, message: AttachmentBlob) -> str | None:
    """What is wrong with an announcement for `attachment`, None where nothing is."""
    if message.attachment_id != attachment.id:
        return f"its blob is next, not that of {quoted(message.attachment_id)}"
    match attachment:
        case ImageAttachment() if message.len != attachment.blob_bytes():
            return f"len is {message.len}, must be width * height * 3 = {attachment.blob_bytes()}"
        case AudioAttachment() if message.len == 0 or message.len % _FLOAT32_BYTES:
            return f"len is {message.len}, must be a multiple of 4, not 0 (float32 samples)"
    return None
