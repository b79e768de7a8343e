"""What is installed, how it is pinned and under which licences: `make licences`, `make sbom`, `make advisories`."""
