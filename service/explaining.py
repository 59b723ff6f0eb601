"""Settings told in words, for ``tailrace check``: addresses without passwords, headers by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.settings import ProviderSettings, Settings, UpstreamSettings
from service.values import format_duration, masked_url


def explain(settings: Settings, lacking: Callable[[ProviderSettings], str]) -> str:
    """What ``tailrace check`` says of settings that are right: many lines, no passwords.

    ``lacking`` tells why a provider of language models cannot be asked; "" where it can.
    """
    limits, server = settings.limits, settings.server
    sources = "\n".join(
        f"  {name}: {_address(settings.source_url(name))}{'' if source.url else ' (the same)'}, "
        f"lane {source.lane}, at most {source.max_connections} connections, "
        f"exposes {', '.join(source.expose) or 'nothing by itself'}"
        for name, source in settings.sources.items()
    )
    datasets = "\n".join(
        f"  {name}: {f'table {dataset.table}' if dataset.table else 'sql'} of {dataset.source}"
        for name, dataset in settings.datasets.items()
    )
    files = "\n".join(
        f"  {name}: {root.path}{'' if _is_folder(root.path) else ' (not a folder now)'}"
        for name, root in settings.files.items()
    )
    upstreams = "\n".join(
        f"  {name}: {_upstream(upstream)}" for name, upstream in settings.upstreams.items()
    )
    providers = "\n".join(
        f"  {name}: {_provider(provider, lacking(provider))}"
        for name, provider in settings.llm.items()
    )
    return f"""\
configuration: {settings.config_path or "no file"}
data directory: {settings.data_dir}
database: {_address(settings.database.url)}
sources:
{sources}
datasets:
{datasets or "  only what the sources expose"}
files:
{files or "  none"}
upstreams:
{upstreams or "  none"}
free addresses: {_ports(settings)}
language models:
{providers or "  none"}
limits: an export may take {format_duration(limits.max_duration)} and stall \
{format_duration(limits.stall_timeout)}; artifacts stay {format_duration(limits.artifact_ttl)}, records {format_duration(limits.record_ttl)}, \
generations {format_duration(limits.generation_ttl)}
jobs: {settings.worker.concurrency} at once in each worker, {limits.max_queued} may wait; \
{limits.max_attempts} attempts, a lease of {format_duration(limits.lease)}; new ones need \
{limits.min_free_space} bytes of free space
server: {server.host} port {server.port}, processes: {server.processes}"""


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # above it is one that may not be looked into
        return False


def _upstream(upstream: UpstreamSettings) -> str:
    told = (
        ("only", upstream.paths),
        ("sends", upstream.headers),
        ("passes on", upstream.forward),
        ("may lead on to", upstream.redirects),
    )
    parts = (f"{word} {', '.join(names)}" for word, names in told if names)
    return "; ".join((f"{', '.join(upstream.methods)} {upstream.base_url}", *parts))


def _provider(provider: ProviderSettings, missing: str) -> str:
    if provider.kind == "echo":
        return "echo, a stand-in"
    address = f" at {provider.base_url}" if provider.base_url else ""
    key = "with a key" if provider.api_key else "without a key"
    lack = f"; cannot be asked: {missing}" if missing else ""
    return f"{provider.kind}{address}, model {provider.model}, {key}{lack}"


def _ports(settings: Settings) -> str:
    if not settings.relay.allow_urls:
        return "not relayed"
    ports = ", ".join(map(str, settings.relay.ports))
    return f"relayed from public hosts, ports {ports}"


def _address(url: str | None) -> str:
    return masked_url(url) if url else "embedded PostgreSQL"
