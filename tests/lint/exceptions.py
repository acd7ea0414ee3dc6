"""What lint lets pass, by name, and why."""

_LAUNCH = "a kernel's arguments are what a launch copies to the device"
_FOREIGN = "another library's signature"
_OP = "the op's operands (kernels/backend.h): q, k, v, o, lse, their gradients, segments and shape"
_LOOP = "an inner loop whose state would be copied into a struct at every call"
_PLACE = "settings, what trains, and the mesh, device and memory it works on"
_KERNEL = "one kernel: loads, products and stores share registers and shared memory"
_PROGRAM = "a program for measuring or for tests, read from top to bottom"

PARAMETERS = {
    "kernels/backend.h": {"attention_backward": _OP},
    "kernels/backend_ops.cpp": {"Backend::attention_backward": _OP},
    "kernels/cpu/attention.cpp": {"CpuBackend::do_attention_backward": _OP},
    "kernels/cuda/attention_plans.cpp": {"CudaBackend::do_attention_backward": _OP},
    "kernels/cuda/gemv.cu": {"gemv_kernel": _LAUNCH},
    "kernels/cuda/gemv_quantised.cu": {"quantised_gemv_kernel": _LAUNCH},
    "kernels/cuda/loss.cu": {"backward_kernel": _LAUNCH},
    "kernels/cuda/move.cu": {"move_kernel": _LAUNCH},
    "kernels/cuda/norm.cu": {"norm_kernel": _LAUNCH, "norm_backward_kernel": _LAUNCH},
    "kernels/cuda/pointwise.cu": {"rope_kernel": _LAUNCH, "swiglu_backward_kernel": _LAUNCH},
    "kernels/cuda/sampling.cu": {"sample_kernel": _LAUNCH, "log_probability_kernel": _LAUNCH},
    "optim/optimizer.cpp": {"Optimizer::Optimizer": _PLACE},
    "optim/optimizer.h": {"Optimizer": _PLACE},
    "tests/cuda/emulation/cublaslt.cpp": {
        "multiply": _FOREIGN,
        "cublasLtMatmulAlgoGetHeuristic": _FOREIGN,
        "cublasLtMatmulAlgoCheck": _FOREIGN,
        "cublasLtMatmul": _FOREIGN,
    },
    "tests/cuda/emulation/runtime.cpp": {"cudaMemcpy2DAsync": _FOREIGN},
    "tests/cuda/support/stand_in_driver.cpp": {"cuLibraryLoadData": _FOREIGN},
    "tests/reference/reference.h": {"softmax_row": "the plain loop that every attention test reads"},
}

FUNCTION_LINES = {
    "kernels/cuda/attention.cu": {"attention_kernel": _KERNEL},
    "kernels/cuda/attention_backward.cu": {"key_gradient_kernel": _KERNEL},
    "kernels/cuda/attention_decode.cu": {"decode_kernel": _KERNEL},
    "kernels/cuda/low_rank.cu": {"low_rank_kernel": _KERNEL},
    "tests/gpu/bench.cpp": {"pointwise": _PROGRAM, "products": _PROGRAM},
    "tests/parallel/mesh_run.cpp": {"run": _PROGRAM},
    "tests/cuda/support/cudnn_support.cpp": {"check_support": _PROGRAM},
    "tests/kernels/op_call_test.cpp": {"TEST_F": "one list: every op with operands that do not fit"},
    "tests/data/tokenizer_refused_test.cpp": {"TEST": "one list: every way a tokenizer.json is refused"},
}

FILE_LINES = {
    "launch/serve/page.html": "one page in one file: its style, elements and script",
    "tests/e2e/using_test.py": "one made-up model for all verbs",
    "tests/fuzz/make_seeds": "the seeds of every format, a list",
    "tests/gpu/run": "one script that a machine with a GPU gets",
}

# Headers of plain structs and enums, with nothing to link: anybody may include them.
LEAVES = {"configs/choices.h", "configs/schema.h", "data/message.h", "kernels/tensor.h", "model/config.h"}
INCLUDES = {
    "kernels/devices/devices.cpp": {"kernels/cuda/weight.h": "how weights lie on a GPU, for plans where there is none"},
    "kernels/cuda_module/cuda_module.h": {
        "kernels/devices/devices.h": "what the table of the shared object is made of"
    },
    "launch/grammar/present/grammar_library.cpp": {"launch/grammar/grammar_library.h": "which of two it is"},
    "launch/grammar/absent/grammar_library.cpp": {"launch/grammar/grammar_library.h": "which of two it is"},
}

LINE_LENGTH = {
    "data/pre_tokenizer.cpp": "a pattern as the format states it",
    "data/text_pattern.cpp": "Unicode classes",
    "data/tokenizer_parts.cpp": "a pattern as the format states it",
    "model/files/gguf_pre_tokenizer.cpp": "a pattern as the format states it",
    "tests/fuzz/make_seeds": "chat templates and patterns as they are published",
    "tests/files/config_test.cpp": "a config.json as it was published",
    "tests/files/adapter_test.cpp": "an adapter_config.json as it was published",
    "tests/files/safetensors_test.cpp": "a header's bytes in one string",
}

# Where a word that is banned elsewhere is a term of the code.
WORDS = {
    "data/jinja/methods.cpp": {"strip"},  # Python's name
    "data/token_texts.": {"strip"},  # a decoder's name in tokenizer.json
    "data/tokenizer_parts.cpp": {"strip"},
    "kernels/cuda/": {"strip", "margin"},  # the layout of an adapted weight in a GPU's memory
    "launch/serve/page.html": {"margin"},  # CSS's name
    "tests/": {"strip", "margin"},
    ".github/CONTRIBUTING.md": {"strip"},  # the glossary's word for it
    "tests/lint/": None,  # the list of the words itself
}
