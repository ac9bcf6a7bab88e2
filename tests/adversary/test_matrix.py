"""A sample of the matrix of principals, operations and relations.

All of it is `python -m verification.adversary.matrix`.
"""

from verification.adversary import matrix


def test_the_matrix_has_every_kind_of_cell() -> None:
    cells = matrix.all_cells()
    assert len({(cell.name, cell.principal) for cell in cells}) == len(cells)
    assert len([cell for cell in cells if cell.wanted[1] is not None]) >= 2000
    assert len([cell for cell in cells if cell.wanted[1] is None]) >= 500


async def test_a_sample_answers_as_the_table_says(stripe_simulator: str, database_url: str) -> None:
    seen = await matrix.run(stripe_simulator, database_url, share=0.025)
    assert seen.misses == []
    assert seen.cells > 250
