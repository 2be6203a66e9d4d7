// tables.h: constant tables of positions: rotary angles and ALiBi slopes. Not collective.
#ifndef DS_TABLES_H
#define DS_TABLES_H

#include "arch/arch_part.h"
#include "kernels/kernels.h"

// fp32 [max_positions, rotary_dim]: rotary_dim / 2 cosines, then sines, of pos * freq; frequencies
// theta^(-2d/rotary_dim), scaled as rope_scaling says (linear: / factor; llama3: by wavelength, as Llama 3.1 publishes
// it). NULL without rotary. Owner: caller.
Dev *tables_rope(const Kernels *k, const Arch *a);

// fp32 [own heads] slopes of Press et al. 2022 (a head count that is no power of two takes every other slope of the
// next). NULL without.
Dev *tables_alibi(const Kernels *k, const Arch *a, const ArchPart *part);

#endif
