"""Nodes: functions and models, who answers a call, and the client that makes one."""
