"""A back end in FastAPI: it signs its own people in, makes their tokens for Coseat, and serves them by access.

    COSEAT_API=http://127.0.0.1:8000 TOKEN_SECRET=… WEBHOOK_SECRET=whsec_… python examples/backend_fastapi.py 3000

TOKEN_SECRET is Coseat's AUTH_JWT_SECRET. WEBHOOK_SECRET is that of an endpoint whose URL ends in `/hooks/coseat`. A
real application keeps people, sessions, `seen` and `workspaces` in its database.
"""

import os
import secrets
import sys
import time
from hashlib import scrypt
from typing import Annotated, Any

import httpx
import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import APIKeyCookie
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ISSUER = os.environ.get("TOKEN_ISSUER", "https://auth.coseat.localhost")
AUDIENCE = os.environ.get("TOKEN_AUDIENCE", "coseat-development")
PRODUCTS = ["prod_demoteam", "prod_demoscale"]
REPORTS = "prod_demoteam"
TOKEN_SECONDS = 300
SALT = b"a real application has one for each person"

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
coseat = httpx.AsyncClient(base_url=f"{os.environ['COSEAT_API']}/v1")


def digest(password: str) -> bytes:
    return scrypt(password.encode(), salt=SALT, n=2**14, r=8, p=1)


# This application has confirmed the address of everybody who is in here.
passwords = {f"{name}@acme.example": digest(f"password of {name}") for name in ("ann", "ben", "eve")}
sessions: dict[str, str] = {}
customers: dict[str, str] = {}
seen: set[str] = set()
workspaces: dict[tuple[str, str], dict[str, Any]] = {}


def token_of(email: str) -> str:
    """Return a short token of one person. `sub` must stay the same if a person gets another address."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": email, "email": email, "email_verified": True}
    return jwt.encode(claims | {"iat": now, "exp": now + TOKEN_SECONDS}, os.environ["TOKEN_SECRET"], "HS256")


async def ask(method: str, path: str, email: str, **request: Any) -> Any:
    """Ask Coseat as this person, who gets no other rights than their own. Refusals are passed on."""
    authorization = {"Authorization": f"Bearer {token_of(email)}"}
    answer = await coseat.request(method, path, headers=authorization, **request)
    if answer.is_error:
        problem = answer.json()
        raise HTTPException(answer.status_code, {"code": problem["code"], "detail": problem["detail"]})
    return answer.json()


def signed_in(session: Annotated[str | None, Depends(APIKeyCookie(name="session", auto_error=False))]) -> str:
    email = sessions.get(session or "")
    if email is None:
        raise HTTPException(401, "Sign in first.")
    return email


Email = Annotated[str, Depends(signed_in)]


class SignIn(BaseModel):
    email: str
    password: str


@app.post("/sign-in", status_code=204)
async def sign_in(given: SignIn, response: Response) -> None:
    """Begin a session. The new-user trigger gives the person the customer that holds a seat for their address."""
    if not secrets.compare_digest(digest(given.password), passwords.get(given.email, b"")):
        raise HTTPException(401, "E-mail or password is wrong.")
    answer = await ask("POST", "/customers", given.email, json={})
    customers[given.email] = answer["customer"]["id"]
    session = secrets.token_urlsafe(32)
    sessions[session] = given.email
    response.set_cookie("session", session, httponly=True, secure=True, samesite="lax")


@app.get("/coseat-token")
async def coseat_token(email: Email) -> dict[str, Any]:
    """Give the page a token, with which it calls Coseat itself. It asks again before the token ends."""
    return {"token": token_of(email), "expires_in": TOKEN_SECONDS}


@app.get("/access")
async def access(email: Email) -> dict[str, bool]:
    """List what the person may use."""
    answers = {
        one: await ask("GET", "/customers/me/access", email, params={"product_id": one}) for one in PRODUCTS
    }
    return {product: answer["has_access"] for product, answer in answers.items()}


async def has_seat(email: Email) -> dict[str, Any]:
    answer: dict[str, Any] = await ask("GET", "/customers/me/access", email, params={"product_id": REPORTS})
    if not answer["has_access"]:
        raise HTTPException(403, "You have no seat.")
    return answer


@app.get("/reports")
async def reports(seat: Annotated[dict[str, Any], Depends(has_seat)]) -> dict[str, Any]:
    """Serve those who have a seat now."""
    return {"reports": [], "role": seat["role"]}


@app.post("/hooks/coseat", status_code=204)
async def receive(request: Request) -> None:
    """Take an event in, which may come again. What Coseat did not sign is refused."""
    try:
        event = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError:
        raise HTTPException(401, "This signature does not fit.") from None
    if event["id"] in seen:
        return
    seen.add(event["id"])
    if event["type"] == "access.changed":
        key = (event["customer_id"], event["data"]["product_id"])
        # Several subscriptions can give access, so the revision decides and not the order of arrival.
        if event["data"]["revision"] > workspaces.get(key, {"revision": 0})["revision"]:
            workspaces[key] = event["data"]


@app.get("/workspace")
async def workspace(email: Email) -> dict[str, bool]:
    """Return what the events made of the person's workspace: open with a seat, closed without."""
    return {"open": workspaces.get((customers[email], REPORTS), {"has_access": False})["has_access"]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
