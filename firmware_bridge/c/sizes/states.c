// One of each state, so that `nm` tells how much RAM it takes.
#include "edgeasr.h"

extern edgeasr_adpcm_t state_adpcm;
extern edgeasr_frame_reader_t state_frame;
extern edgeasr_gate_t state_gate;
extern edgeasr_logmel_t state_logmel;
extern edgeasr_ring_t state_ring;
extern edgeasr_vad_t state_vad;
// What its caller gives to each, for 20 ms frames of 16 kHz and a pre-roll of 300 ms.
extern uint8_t buffer_frame[];
extern int16_t buffer_gate[];
extern int16_t buffer_ring[];

edgeasr_adpcm_t state_adpcm;
edgeasr_frame_reader_t state_frame;
edgeasr_gate_t state_gate;
edgeasr_logmel_t state_logmel;
edgeasr_ring_t state_ring;
edgeasr_vad_t state_vad;
uint8_t buffer_frame[EDGEASR_FRAME_MAX(640)];
int16_t buffer_gate[8192];
int16_t buffer_ring[1024];
