"""Engines generate and train.

`models`        a model by name: a hub id, a folder, or a bundled model
`bundled`       the bundled SmolLM2, converted once to a cache folder
`tokenization`  `ChatTokenizer`: the chat template, encoding, decoding and the ends of a completion
`transformers`  `TransformersGenerator`: samples from a Hugging Face model in this process
`vllm`          `VllmGenerator`: samples with a vLLM engine in this process; the only package that imports vllm
`requests`      the checks of a request that both share
`samples`       completions that are being written, and the end of each
`slots`         rows of the cache, in which a finished sample makes room for the next
`prefill`       keys and values of prompts, computed once for all samples
`kv_cache`      keys and values of the transformers engine, in place · `cache_argument`: their name
`attention`     attention for it, few query tokens, grouped heads; and for rows that share prefixes
`guessing`      the guesses for the samples that are being written
`guesses`       the next tokens of a completion, guessed from a draft; how many pay
`cores`         one thread for passes over a few tokens of a small model
`verifying`     a pass over several tokens per row, which verifies guesses
`sampling`      a token from logits and one uniform number
`stopping`      cutting a completion at a stop string
`releases`      the tested releases of vLLM and DeepSpeed; others are refused
`server`        `ServerAuthor`: a refiner behind an OpenAI-compatible server
`exchange`      its requests over HTTP, each with a deadline
`guest`         restores what a library changes in the process
`torch`         `TorchTrainer`: trains one model in this process
`deepspeed`     `DeepSpeedTrainer`: trains one model over all ranks; the only package that imports deepspeed
`optimization`  the optimizer and its learning-rate schedule
`masters`       float32 weights and gradients of a network in 16 bits
`precision`     TF32 for float32 products on a GPU
`networks`      the modules that are trained: a trunk with a language-model head or a value head
`packing`       hidden states of rows, alone or of the tree of rows that share prefixes
`segments`      attention over that tree
`lora`          `LoraNetwork`: a policy that trains an adapter; the only file that imports peft
`devices`       the device that a process uses, or the reason why it cannot
`hardware`      the devices of this machine, as PyTorch sees them
`launched`      a process's place among those that a launcher started
`world`         `Ranks`: the ranks of a run
`lifeline`      ends all ranks when one ends
`termination`   SIGTERM, handled while the main thread is blocked
`allocator`     keeps freed memory for the next step on a CPU
"""
