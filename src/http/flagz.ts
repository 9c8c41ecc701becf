/** /flagz: every command line flag with its value. */
import { present, title } from './negotiate.js';
import type { Route } from './routes.js';

export function flagzRoute(flags: () => ReadonlyMap<string, string>): Route {
  const sorted = (): [string, string][] => [...flags()].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    path: '/flagz',
    listed: true,
    answer: ({ headers }) =>
      present(
        {
          kind: 'Flagz',
          text: () =>
            title('flagz') +
            sorted()
              .map(([name, value]) => `${name}: ${value}\n`)
              .join(''),
          fields: () => ({ flags: Object.fromEntries(sorted()) }),
        },
        headers.accept,
      ),
  };
}
