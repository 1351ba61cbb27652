// The whole library: C99, no memory of its own, no floating point.
#ifndef EDGEASR_H
#define EDGEASR_H

#include "edgeasr_adpcm.h"
#include "edgeasr_cobs.h"
#include "edgeasr_crc.h"
#include "edgeasr_features.h"
#include "edgeasr_frame.h"
#include "edgeasr_gate.h"
#include "edgeasr_logmel.h"
#include "edgeasr_messages.h"
#include "edgeasr_ring.h"
#include "edgeasr_status.h"
#include "edgeasr_ulaw.h"
#include "edgeasr_vad.h"

#endif
