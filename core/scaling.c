#include "scaling.h"

unsigned scaling_utilization(const struct scaling_sample *sample)
{
	unsigned wanted = sample->n_active + sample->n_waiting;
	unsigned capacity = sample->n_active + sample->n_idle + sample->n_coming;
	if (wanted == 0)
		return 0;
	return capacity == 0 ? 100 : 100 * wanted / capacity;
}

unsigned scaling_desired(const struct scaling_sample *sample, unsigned up_at)
{
	if (scaling_utilization(sample) <= up_at)
		return sample->n_total;
	return sample->n_total + (sample->n_waiting > 0 ? sample->n_waiting : 1);
}
