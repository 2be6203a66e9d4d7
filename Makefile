# make            ./dschat and bin/dschat-{data,model,eval,chat}       make test     what CI runs
# make demo       set up, build, run the three stages of inputs/demo.in  make test-all the slow sweeps too
# make fuzz       every parser under libFuzzer, FUZZ_SECONDS each
# make smollm2    fetch and import SmolLM2-135M-Instruct                make lint     the rules that a grep can hold
# make bench      phases beside PyTorch, kernels beside the machine     make clean
#
# Variables: BUILD (objects, tests, PnetCDF), PNETCDF (its prefix), SAN=1 (ASan + UBSan), ROOMS (compile only these rooms of
# src/, for working on one of them).

BUILD   ?= build
PNETCDF ?= $(CURDIR)/build/pnetcdf
CC      := mpicc
ROOMS   ?= $(notdir $(wildcard src/*))

PKGS    := hdf5-serial libutf8proc jansson libpcre2-8 libxxhash libedit hwloc libcrypto inih zlib
WARN    := -Wall -Wextra -Wshadow -Wvla -Werror
STRICT  := -Wconversion -Wno-sign-conversion
CFLAGS  := -std=c11 -D_GNU_SOURCE -g -O2 -fopenmp $(WARN)
LDFLAGS := -fopenmp
ifeq ($(SAN),1)
# gcc warns of null format strings in code that the sanitizer itself adds.
CFLAGS  += -fsanitize=address,undefined -fno-omit-frame-pointer -O1 -Wno-format-truncation
LDFLAGS += -fsanitize=address,undefined
endif
COMMIT  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# The file changes when the commit does, and with it what says which commit it is.
$(shell mkdir -p $(BUILD) && echo '$(COMMIT)' | cmp -s - $(BUILD)/commit || echo '$(COMMIT)' > $(BUILD)/commit)
CPPFLAGS := -Isrc -I. $(shell pkg-config --cflags $(PKGS)) -I$(PNETCDF)/include
LIBS    := $(shell pkg-config --libs $(PKGS)) -L$(PNETCDF)/lib -lpnetcdf -ldnnl -lm -ldl

SRC     := $(wildcard $(foreach r,$(filter-out main.c job.c job.h,$(ROOMS)),src/$(r)/*.c))
# The CPU's kernels are compiled once for each instruction set (kernels/kernels.c chooses one at run time), and the objects of
# a set joined to one, of which only its table cpu_set_NAME is seen.
ifneq ($(filter x86_64 amd64,$(shell uname -m)),)
SETS := generic avx2 avx512 avx512_bf16 amx
else
SETS := generic
endif
ISA_generic     := -Wno-psabi
ISA_avx2        := -march=x86-64-v3
ISA_avx512      := -march=x86-64-v4
ISA_avx512_bf16 := -march=x86-64-v4 -mavx512bf16
ISA_amx         := -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16
CPUSRC  := $(wildcard kernels/cpu/*.c)
KSRC    := $(wildcard kernels/*.c)
JOB     := $(filter job.c,$(ROOMS))
OBJ     := $(SRC:%.c=$(BUILD)/obj/%.o) $(KSRC:%.c=$(BUILD)/obj/%.o) $(if $(JOB),$(BUILD)/obj/src/job.o)
CPUOBJ  := $(foreach s,$(SETS),$(CPUSRC:%.c=$(BUILD)/obj/$(s)/%.o))
LIB     := $(BUILD)/libdschat.a
TOOLS   := $(patsubst tools/%.c,bin/%,$(wildcard tools/dschat-*.c))
TESTSRC := $(wildcard tests/unit/*.c tests/kernels/*.c tests/spmd/*.c tests/golden/*.c tests/bench/*.c)
TESTBIN := $(TESTSRC:tests/%.c=$(BUILD)/tests/%)

.PHONY: all tests test test-all fuzz fuzz-build lint demo smollm2 bench clean setup
all: dschat $(TOOLS)

dschat: $(BUILD)/obj/src/main.o $(LIB)
	@echo "  ld $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
bin/%: $(BUILD)/obj/tools/%.o $(LIB)
	@mkdir -p bin
	@echo "  ld $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(LIB): $(OBJ) $(SETS:%=$(BUILD)/obj/cpu_%.o)
	@rm -f $@
	@ar rcs $@ $^

define one_set
$(BUILD)/obj/cpu_$(1).o: $(CPUSRC:%.c=$(BUILD)/obj/$(1)/%.o)
	@ld -r -o $$@ $$^
	@objcopy --keep-global-symbol=cpu_set_$(1) $$@
$(BUILD)/obj/$(1)/kernels/cpu/%.o: kernels/cpu/%.c
	@mkdir -p $$(@D)
	@echo "  cc $$< ($(1))"
	@$$(CC) $$(CPPFLAGS) -DCPU_ISA=$(1) $$(CFLAGS) -O3 $$(ISA_$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach s,$(SETS),$(eval $(call one_set,$(s))))
$(foreach r,comm tensor plan io,$(eval $(BUILD)/obj/src/$(r)/%.o: CFLAGS += $$(STRICT)))
# MPICH spells MPI_STATUSES_IGNORE as the address 1, which gcc 12 takes for a short buffer.
$(BUILD)/obj/src/comm/%.o: CFLAGS += -Wno-stringop-overflow
$(BUILD)/obj/src/io/origin.o: $(BUILD)/commit
$(BUILD)/obj/src/io/origin.o: CPPFLAGS += -DDS_COMMIT='"$(COMMIT)"' -DDS_FLAGS='"$(CFLAGS) kernels: -O3 for $(SETS)"'
$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB)
	@mkdir -p $(@D)
	@echo "  ld $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) -lcmocka $(LIBS)
tests: $(TESTBIN)

# libFuzzer's targets are built by clang, with ASan and UBSan, apart from everything else; COVER=1: to count lines instead.
FUZZ_CC   := clang
FUZZ_SAN  := $(if $(COVER),-fprofile-instr-generate -fcoverage-mapping -DFUZZ_COVER,-fsanitize=address,undefined -fno-sanitize-recover=all)
FUZZ_DIR  := $(BUILD)/fuzz$(if $(COVER),-cover)
FUZZ_SRC  := $(wildcard $(foreach r,base params comm token arch io data,src/$(r)/*.c) tests/fuzz/lib/*.c)
FUZZ_OBJ  := $(FUZZ_SRC:%.c=$(FUZZ_DIR)/obj/%.o)
FUZZ_BIN  := $(patsubst tests/fuzz/%.c,$(FUZZ_DIR)/%,$(wildcard tests/fuzz/*.c))
FUZZ_MPI  := $(shell mpicc -compile_info 2>/dev/null | tr ' ' '\n' | grep '^-I')
FUZZ_LINK := $(filter -l% -L% -Wl%,$(shell mpicc -link_info 2>/dev/null))
# Comparisons are watched where formats are parsed; in these, which everything calls, that would be a third of the time.
$(FUZZ_DIR)/obj/src/base/%.o $(FUZZ_DIR)/obj/tests/%.o: FUZZ_SAN += -fno-sanitize-coverage=trace-cmp
$(FUZZ_DIR)/obj/src/io/origin.o: CPPFLAGS += -DDS_COMMIT='"fuzz"' -DDS_FLAGS='"fuzz"'
$(FUZZ_DIR)/obj/%.o: %.c
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_MPI) -std=c11 -D_GNU_SOURCE -DDS_SANITIZED -g -O2 -fno-omit-frame-pointer -Wall -Wno-unknown-pragmas -Wno-unknown-attributes -fsanitize=fuzzer-no-link $(FUZZ_SAN) -MMD -MP -c -o $@ $<
# A library: libFuzzer looks at all counters of a program after each execution, so that those of other parsers cost time.
# The kernels, which parse nothing, are those of the program.
FUZZ_LIB  := $(FUZZ_DIR)/libfuzz.a
$(FUZZ_LIB): $(FUZZ_OBJ) $(KSRC:%.c=$(BUILD)/obj/%.o) $(SETS:%=$(BUILD)/obj/cpu_%.o)
	@rm -f $@
	@ar rcs $@ $^
$(FUZZ_BIN): $(FUZZ_DIR)/%: $(FUZZ_DIR)/obj/tests/fuzz/%.o $(FUZZ_LIB)
	@echo "  ld $@"
	@$(FUZZ_CC) -fsanitize=fuzzer $(FUZZ_SAN) -Wl,--wrap=h5_inspect,--wrap=origin_fill -o $@ $^ $(LIBS) $(FUZZ_LINK) -lgomp
# The same targets without clang, for what is in tests/fuzz/corpus.
FUZZ_REPLAY := $(patsubst tests/fuzz/%.c,$(BUILD)/obj/replay/%.o,$(wildcard tests/fuzz/*.c))
$(BUILD)/obj/replay/%.o: tests/fuzz/%.c
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CPPFLAGS) -DLLVMFuzzerTestOneInput=fuzz_$* $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/tests/unit/test_fuzz: $(FUZZ_REPLAY)
fuzz-build: $(FUZZ_BIN)
fuzz: fuzz-build
	tests/fuzz/run

test: all tests
	tests/run
test-all: all tests
	tests/run --all
lint:
	tests/lint
setup:
	tools/setup.sh
demo:
	tools/setup.sh
	$(MAKE) all
	jobs/local.sh inputs/demo.in
smollm2:
	tools/smollm2.sh
bench: all
	tests/bench/run
clean:
	rm -rf $(BUILD)/obj $(BUILD)/tests $(LIB) bin dschat

-include $(OBJ:.o=.d) $(FUZZ_OBJ:.o=.d) $(FUZZ_REPLAY:.o=.d) $(FUZZ_BIN:$(FUZZ_DIR)/%=$(FUZZ_DIR)/obj/tests/fuzz/%.d) $(CPUOBJ:.o=.d) $(TESTBIN:$(BUILD)/tests/%=$(BUILD)/obj/tests/%.d) $(wildcard $(BUILD)/obj/tools/*.d $(BUILD)/obj/src/main.d)
.SECONDARY:
