"""Tax ids of customers, as far as it matters that a customer has one."""

from ..call import Call
from ..listing import page
from ..objects import Obj
from ..world import Transaction


def create_tax_id(call: Call) -> Obj:
    tx, params = call.tx, call.params
    customer = tx.need("customer", call.id, "customer")
    tax_id = {
        "id": tx.new_id("txi_"),
        "object": "tax_id",
        "country": None,
        "created": tx.now,
        "customer": customer["id"],
        "customer_account": None,
        "livemode": False,
        "owner": {"type": "customer", "customer": customer["id"]},
        "type": params["type"],
        "value": params["value"],
        "verification": None,
    }
    tx.store("tax_id", tax_id)
    return tax_id


def list_tax_ids(call: Call) -> Obj:
    tx = call.tx
    tx.need("customer", call.id, "customer", 404)
    among = tx.world.collection("tax_id").find("customer", call.id)
    return page(tx, "tax_id", call.params, f"/v1/customers/{call.id}/tax_ids", _shown, among=among)


def _shown(_: Transaction, tax_id: Obj) -> Obj:
    return tax_id
