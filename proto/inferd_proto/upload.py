"""The attachments of one request on their way in: announced, charged, then kept or dropped.

Blobs follow their request in order (wire.md section 3.2). Each is charged against the request's
total when it is announced, and its frame is let in only at the announced length. After a
refused request its blobs are read past without keeping a byte.
"""

from .errors import ErrorCode, RemoteProtocolError
from .frames import MAX_FRAME_BYTES, FrameType
from .messages import (
    MAX_REQUEST_BLOB_BYTES,
    Attachment,
    AttachmentBlob,
    AudioAttachment,
    GenerateV2,
    ImageAttachment,
)
from .messages.decoding import Request

_FLOAT32_BYTES = 4


class BlobGate:
    """Decides for each BLOB frame whether it may come in."""

    __slots__ = ("_announced", "_blobs", "_discarding", "_expected", "_total", "request")

    def __init__(self) -> None:
        self.request: GenerateV2 | None = None
        self._expected: list[Attachment] = []
        self._blobs: list[bytes] = []
        self._announced = -1
        self._total = 0
        self._discarding = False

    @property
    def uploading(self) -> bool:
        """True while the current request misses a blob."""
        return self.request is not None and len(self._blobs) < len(self._expected)

    @property
    def awaits_blob(self) -> bool:
        """True between an `attachment_blob` message and its BLOB frame."""
        return self._announced >= 0

    def expect(self, request: Request) -> bool:
        """A valid request begins; True where it has attachments to wait for."""
        self.reset()
        if isinstance(request, GenerateV2) and request.attachments:
            self.request = request
            self._expected = request.attachments
            return True
        return False

    def discard(self) -> None:
        """The request was refused: read past the blobs that may follow it."""
        self.reset()
        self._discarding = True

    def reset(self) -> None:
        """Forget the current upload."""
        self.request = None
        self._expected = []
        self._blobs = []
        self._announced = -1
        self._total = 0
        self._discarding = False

    def announce(self, message: AttachmentBlob) -> None:
        """Charge an announced blob. Raises RemoteProtocolError before a byte of it is read."""
        if not self.uploading and not self._discarding:
            self.discard()
            self._announced = message.len
            raise RemoteProtocolError("attachment_blob without a request that announced it")
        self._total += message.len
        if message.len > MAX_FRAME_BYTES or self._total > MAX_REQUEST_BLOB_BYTES:
            raise RemoteProtocolError(
                f"attachments of {self._total} bytes are over the cap of {MAX_REQUEST_BLOB_BYTES}"
                f" a request, {MAX_FRAME_BYTES} a blob",
                code=ErrorCode.FRAME_TOO_LARGE,
                close=True,
            )
        if self.uploading:
            attachment = self._expected[len(self._blobs)]
            if message.attachment_id != attachment.id:
                raise self.broken(f"the blob of attachment {attachment.id[:80]!r} is next")
            _check_length(attachment, message.len)
        self._announced = message.len

    def admit(self, frame_type: FrameType, length: int) -> bool:
        """Judge a frame by its header; False means: read past it."""
        if frame_type is not FrameType.BLOB:
            return True
        if self._announced < 0:
            raise RemoteProtocolError("BLOB frame without an attachment_blob", close=True)
        if length != self._announced:
            raise RemoteProtocolError(
                f"a blob of {length} bytes was announced with {self._announced}", close=True
            )
        return not self._discarding

    def blob(self, payload: bytes | None) -> GenerateV2 | None:
        """A BLOB frame came in whole; the request it belongs to, None for a dropped one."""
        self._announced = -1
        if payload is None or self.request is None:
            return None
        self._blobs.append(payload)
        return self.request

    def take(self) -> tuple[bytes, ...]:
        """The blobs of a complete request; the gate forgets them."""
        blobs = tuple(self._blobs)
        self.reset()
        return blobs

    def broken(self, why: str) -> RemoteProtocolError:
        """The order of an upload is broken: what follows cannot be told apart any more."""
        request_id = self.request.id if self.request is not None else ""
        return RemoteProtocolError(why, request_id=request_id, close=True)


def _check_length(attachment: Attachment, length: int) -> None:
    if isinstance(attachment, ImageAttachment) and length != attachment.blob_bytes():
        raise _wrong_length(
            attachment.id, length, f"width * height * 3 = {attachment.blob_bytes()}"
        )
    if isinstance(attachment, AudioAttachment) and (length == 0 or length % _FLOAT32_BYTES):
        raise _wrong_length(attachment.id, length, "a multiple of 4, not 0 (float32 samples)")


def _wrong_length(attachment_id: str, length: int, rule: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"attachment {attachment_id[:80]!r}: len is {length}, must be {rule}", close=True
    )
