"""One measurement for each row of docs/rows.md: what a paper found, measured here beside a witness."""
