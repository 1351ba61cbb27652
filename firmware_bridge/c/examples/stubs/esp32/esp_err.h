// For the compile check only: declarations of what the example calls, and no part of ESP-IDF.
#ifndef STUB_ESP_ERR_H
#define STUB_ESP_ERR_H

typedef int esp_err_t;

#define ESP_OK 0

void stub_check(esp_err_t error);
#define ESP_ERROR_CHECK(x) stub_check(x)

#endif
