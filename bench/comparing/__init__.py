"""The parts of bench/compare: machine (processes, CPU time, fio), systems and ceph and gluster (what is measured),
targets (what must be reached), report (RESULTS.md), svg (plots)."""
