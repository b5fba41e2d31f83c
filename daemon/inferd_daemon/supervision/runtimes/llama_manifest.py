"""What a llama.cpp server of ours offers, as far as that is known before it runs. Pure."""

from inferd_proto import (
    BackendManifest,
    CapabilityValue,
    EndpointProtocol,
    ManagementMode,
    RuntimeKind,
    StartupKind,
    TargetClass,
)

LOCAL = "local_subprocess"


def llama_manifest(
    backend: str, *, embeddings: bool, reranking: bool, projector: bool
) -> BackendManifest:
    """`projector`: it is given one; whether that sees or hears, it alone can say."""
    generates = not (embeddings or reranking)
    sees: CapabilityValue = "unknown" if generates and projector else False
    return BackendManifest(
        backend=backend,
        runtime_kind=RuntimeKind.SERVICE,
        management_modes=[ManagementMode.MANAGED],
        startup_kind=StartupKind.SPAWNED,
        protocols=[EndpointProtocol.OPENAI_CHAT_COMPLETIONS],
        target_class=TargetClass.SELF_HOSTED_ENDPOINT,
        capabilities={
            "streaming": generates,
            # By grammar, whatever the chat template knows of tools.
            "tool_calling": generates,
            "structured_output": generates,
            "embeddings": embeddings and not reranking,
            "rerank": reranking,
            "vision": sees,
            "audio": sees,
        },
        supported_surfaces=[LOCAL],
    )
