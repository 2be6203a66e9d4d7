// screen.h: the last screen of a run, from its summary.
#ifndef DS_SCREEN_H
#define DS_SCREEN_H

#include "stage/stage.h"

// Says what was reached, where everything lies and what to type next; rank 0 speaks. Not collective.
void screen_last(const Run *run);

#endif
