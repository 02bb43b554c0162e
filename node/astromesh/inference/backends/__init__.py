"""What inference touches of the world: the llama.cpp worker processes (`llama_cpp/`) and the packages that carry models (`packages`)."""
