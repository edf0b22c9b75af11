"""The address of a source, and what must be said there; the Hub's are its library's, token and HF_ENDPOINT too."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads.answers import is_page
from dmps_cli.files.downloads.sources import Drive, Hub, HubListing, Source, Web

if TYPE_CHECKING:
    import httpx2

DRIVE = "https://drive.google.com/uc"


def address(source: Source, client: httpx2.Client) -> tuple[str, dict[str, str]]:
    """Returns (URL, headers) of a source."""
    match source:
        case Web(url=url):
            return url, {}
        case Hub():
            return _hub_url(source), hub_token()
        case HubListing():
            revision = quote(source.revision, safe="")  # as HfApi.dataset_info(files_metadata=True) asks
            return f"{hub_endpoint()}/api/datasets/{source.repo}/revision/{revision}?blobs=true", hub_token()
        case Drive():
            return _drive_url(source, client), {}


def _hub_url(source: Hub) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(
        source.repo, source.file, repo_type=source.kind, revision=source.revision, endpoint=hub_endpoint()
    )


def hub_endpoint() -> str:
    """Returns HF_ENDPOINT as it is now: the library reads it once, when imported."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def hub_token() -> dict[str, str]:
    """Returns HF_TOKEN or the token of `hf auth login`. httpx2 does not carry it to another host."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _drive_url(source: Drive, client: httpx2.Client) -> str:
    """Returns the address behind the page in which Google Drive asks whether a file that it cannot scan is wanted."""
    page = f"https://drive.google.com/file/d/{source.gdrive}/view"
    by_hand = f"download {page} in a browser and give the file with --model PATH"
    try:
        from gdown.download import get_url_from_gdrive_confirmation
        from gdown.exceptions import FileURLRetrievalError
    except ImportError as exc:
        raise WeightsError(f"this needs gdown: pip install gdown; or {by_hand}") from exc
    url = f"{DRIVE}?id={source.gdrive}&export=download"
    with client.stream("GET", url) as response:
        if not is_page(response):
            return url
        response.read()
        try:
            return str(get_url_from_gdrive_confirmation(response.text))
        except FileURLRetrievalError as exc:
            reason = " ".join(re.sub(r"<[^>]*>", "", str(exc)).split())
            raise WeightsError(f"Google says: {reason.rstrip('.')}; {by_hand}") from exc
