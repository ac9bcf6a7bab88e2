"""Object ids that look random and are the same in every run: a keyed hash of a counter."""

from hashlib import blake2b

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

LENGTHS = {
    "cus_": 14,
    "prod_": 14,
    "si_": 14,
    "sub_": 24,
    "price_": 24,
    "pm_": 24,
    "in_": 24,
    "il_": 24,
    "ii_": 24,
    "evt_": 24,
    "we_": 24,
    "req_": 14,
    "seti_": 24,
    "pi_": 24,
    "di_": 24,
    "promo_": 24,
    "txr_": 24,
    "txi_": 24,
    "inpay_": 24,
    "ch_": 24,
    "py_": 24,
    "re_": 24,
    "du_": 24,
    "cn_": 24,
    "cnli_": 24,
    "cbtxn_": 24,
    "card_": 24,
    "sub_sched_": 24,
    "mtr_": 24,
    "mev_": 24,
    "mes_": 24,
    "whsec_": 32,
}


def token(seed: bytes, number: int, length: int) -> str:
    """``length`` letters and digits from a 256-bit hash of ``number`` keyed by ``seed``."""
    value = int.from_bytes(blake2b(number.to_bytes(8, "big"), key=seed, digest_size=32).digest(), "big")
    letters = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def account_seed(api_key: str) -> bytes:
    return blake2b(api_key.encode(), digest_size=32).digest()
