"""rknn-toolkit2 from outside its environment: toolchain, worker process, compiler, cost, simulator."""
