"""The paper's evaluation as a grid: plan, cells, table, aggregates and figures."""
