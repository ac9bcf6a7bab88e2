"""When the clock next has something to do for an object."""

from typing import Any

from .objects import Obj

EXPIRE_INCOMPLETE_SECONDS = 23 * 3600
TRIAL_WARNING_SECONDS = 3 * 86_400


def due(obj: Obj) -> Any:
    """The next moment (int, seconds; None: never) at which an object changes by itself."""
    if obj.get("deleted"):
        return None
    if obj["object"] == "invoice":
        return _invoice(obj)
    if obj["object"] == "payment_intent":
        return obj["_settles_at"] if obj["status"] == "processing" else None
    if obj["object"] == "subscription_schedule":
        return obj["current_phase"]["end_date"] if obj["status"] == "active" else None
    return _subscription(obj)


def _invoice(invoice: Obj) -> Any:
    if invoice["status"] == "draft":
        return invoice["_finalize_at"]
    if invoice["status"] == "open" and invoice["auto_advance"]:
        return invoice["next_payment_attempt"]
    return None


def _subscription(sub: Obj) -> Any:
    status = sub["status"]
    if status in ("canceled", "incomplete_expired"):
        return None
    if status == "incomplete":
        return int(sub["created"]) + EXPIRE_INCOMPLETE_SECONDS
    moments = []
    if status == "paused" and (sub["_resuming"] or {}).get("until") is not None:
        moments.append(sub["_resuming"]["until"])
    if status != "paused":
        moments += [item["current_period_end"] for item in sub["_items"]]
    if sub["cancel_at"] is not None:
        moments.append(sub["cancel_at"])
    if sub["pending_update"] is not None:
        moments.append(sub["pending_update"]["expires_at"])
    if status == "trialing" and not sub["_trial_warned"]:
        moments.append(sub["trial_end"] - TRIAL_WARNING_SECONDS)
    resumes = (sub["pause_collection"] or {}).get("resumes_at")
    if resumes is not None:
        moments.append(resumes)
    return min(moments, default=None)
