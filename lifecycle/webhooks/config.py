"""Put together what the settings say about webhooks."""

from __future__ import annotations

from typing import NamedTuple, Self

from lifecycle.settings import Settings, SettingsError, environment_name
from lifecycle.webhooks.signature import Signer
from lifecycle.webhooks.target import HostList, Target


class WebhookConfig(NamedTuple):
    """Hold the checked settings of a frontend that delivers webhooks."""

    background_url: str  # gets the events of background responses; empty for none
    hosts: HostList  # that a caller may name
    signer: Signer
    allow_private: bool
    attempts: int
    retry_secs: float
    timeout_secs: float

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return None when webhooks are off. Raises SettingsError when the settings contradict each other."""
        try:
            hosts = HostList.parse(settings.webhook_hosts)
        except ValueError as failure:
            raise SettingsError(f"{environment_name('webhook_hosts')}: {failure}") from None
        if not settings.webhook_url and not hosts.names and not hosts.suffixes:
            return None
        on = environment_name("webhook_url" if settings.webhook_url else "webhook_hosts")
        secret = environment_name("webhook_secret")
        if not settings.webhook_secret.strip():
            raise SettingsError(f"{on} is set and {secret} is not: webhooks must be signed; set a secret, whsec_…")
        try:
            signer = Signer.parse(settings.webhook_secret)
        except ValueError as failure:
            raise SettingsError(f"{secret}: {failure}") from None
        background_url, allow_private = "", settings.webhook_private_addresses
        if settings.webhook_url:
            try:
                background_url = Target.parse(settings.webhook_url, allow_private=allow_private).url
            except ValueError as failure:
                private = environment_name("webhook_private_addresses")
                raise SettingsError(f"{on}: {failure} ({private}=true allows http:// and private addresses)") from None
        return cls(
            background_url,
            hosts,
            signer,
            allow_private,
            settings.webhook_attempts,
            settings.webhook_retry_secs,
            settings.webhook_timeout_secs,
        )
